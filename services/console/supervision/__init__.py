"""The embedded instance: broker and services as child processes, started, watched, restarted and drained."""
