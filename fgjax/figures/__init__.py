"""Pictures of any run, drawn from the artifacts that its stages leave."""
