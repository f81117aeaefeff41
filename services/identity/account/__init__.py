"""The user aggregate, pure: who may try, what a try means, and when an account is locked."""
