"""The model: one transformer, sharded by the names of its parameters."""
