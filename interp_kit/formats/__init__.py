"""The field's graph and feature files, to and from plain tables; nothing here knows the rest of the kit."""
