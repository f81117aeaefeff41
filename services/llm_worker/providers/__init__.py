"""Providers: one adapter per kind of outside model, all behind `protocol.Provider`."""
