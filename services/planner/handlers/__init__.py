"""The edge: one module per noun. Decode and bound, hand to the actor or read, reply."""
