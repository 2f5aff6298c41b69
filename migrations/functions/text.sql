-- How texts are compared where case doesn't matter, said once: what `q` asks and `sort=name` sorts by.

-- Full case folding (Unicode's CaseFolding.txt, C and F) for PostgreSQL 17, which has none: small letters, and what folds to other ones. The
-- letters that are put together with a mark are taken apart for it. In NFC a test finds it equal to that of PostgreSQL 18.
CREATE FUNCTION text_casefolded_by_table(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    small CONSTANT text COLLATE "C" := lower(t COLLATE pg_c_utf8);
BEGIN
    IF octet_length(small) = char_length(small)
       OR small !~ E'[µßŉſ\u0345ςϐϑϕϖϰϱϵև\u1c80-\u1c88ẚẛ\u1f80-\u1ffcﬀ-ﬗ\u0300-\u036f]' THEN
        RETURN small;
    END IF;
    RETURN (SELECT normalize(string_agg(coalesce(jsonb '{
        "ß": "ss", "ſ": "s", "ŉ": "ʼn", "ẚ": "aʾ", "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st",
        "µ": "μ", "ς": "σ", "ϐ": "β", "ϑ": "θ", "ϕ": "φ", "ϖ": "π", "ϰ": "κ", "ϱ": "ρ", "ϵ": "ε", "\u0345": "ι", "\u1c80": "в",
        "\u1c81": "д", "\u1c82": "о", "\u1c83": "с", "\u1c84": "т", "\u1c85": "т", "\u1c86": "ъ", "\u1c87": "ѣ", "\u1c88": "ꙋ",
        "և": "եւ", "ﬓ": "մն", "ﬔ": "մե", "ﬕ": "մի", "ﬖ": "վն", "ﬗ": "մխ"}' ->> c, c), '' ORDER BY n), NFC)
              FROM unnest(string_to_array(normalize(small, NFD), NULL)) WITH ORDINALITY letter (c, n));
END $$;

DO $$ BEGIN
    EXECUTE 'CREATE FUNCTION text_casefolded(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN '
        || CASE WHEN current_setting('server_version_num')::int >= 180000 THEN 'casefold(t COLLATE pg_unicode_fast)'
                ELSE 'text_casefolded_by_table(t)' END;
END $$;

-- Of a text in NFC, as all are that are stored or asked for: its full case folding, with İ as i (which folds to i and a dot above) and ё as е.
-- Whatever the database's collation is, it is the same. It isn't normalised once more, which would make it ten times as dear: that would
-- matter to several marks on one of the few letters that have no capital (ǰ ẖ ẗ ẘ ẙ), and to ΐ and ΰ beside capitals with the accent. Inlined by the planner (a test reads the plan).
CREATE FUNCTION text_folded(t text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN replace(replace(text_casefolded(t) COLLATE "C", E'i\u0307', 'i'), 'ё', 'е');
