"""What locks a process in, and the fork server that starts it there."""
