"""What a program tells of itself: `log` (lines on standard error) and `tracing` (OpenTelemetry spans)."""
