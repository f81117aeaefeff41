"""Programs a developer runs; nothing here is installed."""
