"""The pure heart: types, canonical values, mapping, filters, merge, parsing, decisions."""
