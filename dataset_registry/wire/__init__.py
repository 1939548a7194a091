"""What travels between a server and its clients: JSON shapes, with the field names of the original design.

The server renders records into them, the client reads records out of them. They only ever grow (tests/server/openapi.json
has the stored description).
"""
