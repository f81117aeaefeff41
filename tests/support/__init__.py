"""What several tests need: a real broker, and waiting without sleeping."""
