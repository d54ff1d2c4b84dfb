"""From results/ to what a person reads: tables, figures and reports. Imports no torch; needs no data, no checkpoints."""
