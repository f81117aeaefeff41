"""Points that are checked from outside: of foreign workers, and of the errors of an instance."""
