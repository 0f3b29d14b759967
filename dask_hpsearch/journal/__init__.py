"""The journal of a run: what was asked, what has finished; never what will be."""
