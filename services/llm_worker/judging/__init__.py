"""Whether answers keep to the `response_schema` of their request. Anybody writes schemas, so processes judge."""
