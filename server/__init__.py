"""How connections are held and answers written: all that leans on aiohttp's inside."""
