"""``python -m kommo_airtable_sync`` is the console command."""

from kommo_airtable_sync.cli.main import main

if __name__ == "__main__":
    main()
