"""The ops, bytes and cost of one training step."""
