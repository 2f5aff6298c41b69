-- Who holds a place: another stream may have taken it since.
ALTER TABLE event_stream ADD COLUMN holder uuid NOT NULL DEFAULT gen_random_uuid();
