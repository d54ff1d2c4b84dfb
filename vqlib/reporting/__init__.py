"""From results/ to what a person reads: tables, figures, reports. Imports no torch; needs no data or checkpoints."""
