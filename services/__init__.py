"""The services of htdag, one package each; `runtime` is the shared actor runtime and knows no service."""
