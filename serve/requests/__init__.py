"""From an HTTP request to items in a queue: headers, body, items, admission."""
