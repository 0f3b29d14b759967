"""List prices of Google Cloud, and cost estimates from them."""
