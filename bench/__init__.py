"""Programs that print rates, their ratio to the physical limit, and memory."""
