"""The verbs of `emergence`: what a person types, and how it is shown. No decision is taken here."""
