"""The engine: tasks in, outcomes out as they come, on whatever slots there are."""
