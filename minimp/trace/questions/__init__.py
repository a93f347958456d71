"""The questions that a trace answers; :class:`minimp.trace.Trace` has them as methods."""
