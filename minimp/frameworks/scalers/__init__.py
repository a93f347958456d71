"""Loss scalers beside those of frameworks: rules as programs, random traces, presets."""
