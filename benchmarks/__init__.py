"""Programs that measure speed, memory and numbers at real widths. Not needed to run the pack."""
