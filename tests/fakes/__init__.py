"""Google's services that have no emulator, as servers of Google's own messages."""
