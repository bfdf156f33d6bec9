"""What tests share: tiny models, stand-ins, commands."""
