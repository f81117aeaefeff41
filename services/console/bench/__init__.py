"""`htdag bench`: how fast a whole instance is, seen from outside: real broker, real services, real verbs."""
