-- Close an account: its tokens and its code are dead, its login is free, and housekeeping removes its rows. False where there is none, or not with
-- this token generation (NULL: whichever).
CREATE FUNCTION account_close(p_user_id bigint, p_generation bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE user_state u SET token_generation = -1  -- no token has that
     WHERE u.user_id = p_user_id AND u.token_generation >= 0 AND u.token_generation = coalesce(p_generation, u.token_generation);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM one_time_code c WHERE c.user_id = p_user_id;
    UPDATE users u SET login = ' closed ' || u.id, login_key = ' closed ' || u.id, password_hash = '' WHERE u.id = p_user_id;  -- no login has a space
    RETURN true;
END $$;
