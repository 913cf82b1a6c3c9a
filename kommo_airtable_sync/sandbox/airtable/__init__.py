"""A stand-in of the Airtable Web API: one model without sockets, one web app over it."""
