"""List prices of Google Cloud, and estimates of costs made of them."""
