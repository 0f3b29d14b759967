"""Files of this machine: whole, locked, checked, mapped by many processes."""
