"""Number formats: what they are, rounding, bits, arithmetic, accumulation."""
