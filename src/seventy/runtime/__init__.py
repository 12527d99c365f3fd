"""What a process has once: threads, tuning, the account of memory."""
