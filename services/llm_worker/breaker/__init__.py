"""The breaker: a model that keeps failing is left alone for a while, by all workers together."""
