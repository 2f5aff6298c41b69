-- Who holds a place: another stream may have taken it since. Functions, besides: a question about events, a page of the past, a moment and
-- an undo's answer cost no more than they show, and what is being imported isn't swept meanwhile.
ALTER TABLE event_stream ADD COLUMN holder uuid NOT NULL DEFAULT gen_random_uuid();
