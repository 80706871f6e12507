-- Ali-CCP's text files -> samples and the features that they share, both on disk; DuckDB only.
--
-- In:  common_text (split, common_feature_index, feature_num, feature_list) and skeleton_text (split, sample_id, click,
--      conversion, common_feature_index, feature_num, feature_list): the files' fields as text, "" where empty
-- Out: tables common and samples, in the files' order; broken is the first rule that a row breaks, or null.
--      slice(low, high): the rows of the data set for the samples with low <= rowid < high, in the samples' order
--
-- An entry of a feature_list is FIELD \x02 ID \x03 VALUE; with a \x01 before the list each entry has one before it.

-- The id of a field that stands once; -1 where it does not stand.
CREATE MACRO id_of(list, field) AS
    coalesce(TRY_CAST(nullif(regexp_extract(list, '\x01' || field || '\x02([0-9]+)\x03', 1), '') AS BIGINT), -1);

-- The ids of a field in the order of the list, and their values.
CREATE MACRO ids_of(list, field) AS
    TRY_CAST(regexp_extract_all(list, '\x01' || field || '\x02([0-9]+)\x03', 1) AS BIGINT[]);
CREATE MACRO values_of(list, field) AS
    TRY_CAST(regexp_extract_all(list, '\x01' || field || '\x02[0-9]+\x03([^\x01]*)', 1) AS DOUBLE[]);

-- The greatest value of a field; 0 where it does not stand.
CREATE MACRO value_of(list, field) AS coalesce(list_max(values_of(list, field)), 0);

-- The 20 ids of a field with the greatest values, ties by id.
CREATE MACRO strongest(list, field) AS
    list_transform(
        list_sort(list_zip(list_transform(values_of(list, field), lambda v: -v), ids_of(list, field)))[1:20],
        lambda pair: pair[2]
    );

CREATE MACRO list_rule(feature_num, list) AS
    CASE
        WHEN NOT regexp_full_match(feature_num, '[0-9]{1,9}') THEN 'feature_num must be an integer'
        WHEN NOT regexp_full_match(
            list, '(\x01[0-9]+(_[0-9]+)?\x02[0-9]{1,18}\x03-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?)*'
        ) THEN 'each entry of feature_list must be FIELD \x02 ID \x03 VALUE with an integer id and a number as value'
        WHEN CAST(feature_num AS BIGINT) <> length(list) - length(replace(list, chr(1), ''))
            THEN 'feature_num must be the number of entries of feature_list'
    END;

CREATE TABLE common AS
SELECT
    split,
    common_feature_index,
    CASE WHEN common_feature_index = '' THEN 'common_feature_index must not be empty'
        ELSE list_rule(feature_num, list) END AS broken,
    CASE WHEN broken IS NOT NULL THEN feature_num || ',' || left(list[2:], 200) END AS received,
    id_of(list, '101') AS user_id,
    id_of(list, '121') AS profile,
    id_of(list, '122') AS profile_group,
    id_of(list, '124') AS gender,
    id_of(list, '125') AS age,
    id_of(list, '126') AS consumption_1,
    id_of(list, '127') AS consumption_2,
    id_of(list, '128') AS occupation,
    id_of(list, '129') AS geography,
    strongest(list, '109_14') AS past_categories,
    strongest(list, '110_14') AS past_shops,
    strongest(list, '127_14') AS past_brands,
    strongest(list, '150_14') AS past_intentions
FROM (
    SELECT *, CASE feature_list WHEN '' THEN '' ELSE chr(1) || feature_list END AS list
    FROM common_text
);

CREATE TABLE samples AS
SELECT
    split,
    sample_id,
    common_feature_index,
    CASE
        WHEN NOT regexp_full_match(sample_id, '[0-9]{1,18}') THEN 'sample_id must be an integer'
        WHEN click NOT IN ('0', '1') THEN 'click must be 0 or 1'
        WHEN conversion NOT IN ('0', '1') THEN 'conversion must be 0 or 1'
        ELSE list_rule(feature_num, list)
    END AS broken,
    CASE WHEN broken IS NOT NULL
        THEN concat_ws(',', click, conversion, common_feature_index, feature_num, left(list[2:], 200)) END AS received,
    TRY_CAST(click AS BIGINT) AS click,
    TRY_CAST(conversion AS BIGINT) AS conversion,
    id_of(list, '205') AS item_id,
    id_of(list, '206') AS category,
    id_of(list, '207') AS shop,
    id_of(list, '216') AS brand,
    ids_of(list, '210')[1:10] AS intentions,
    id_of(list, '301') AS "position",
    id_of(list, '508') AS category_match,
    id_of(list, '509') AS shop_match,
    id_of(list, '702') AS brand_match,
    ids_of(list, '853')[1:10] AS intention_match,
    value_of(list, '508') AS category_strength,
    value_of(list, '509') AS shop_strength,
    value_of(list, '702') AS brand_strength,
    value_of(list, '853') AS intention_strength
FROM (
    SELECT *, CASE feature_list WHEN '' THEN '' ELSE chr(1) || feature_list END AS list
    FROM skeleton_text
);

-- A conversion without a click contradicts itself.
CREATE MACRO slice(low, high) AS TABLE
    SELECT
        s.* EXCLUDE (split, sample_id, common_feature_index, broken, received),
        c.* EXCLUDE (split, common_feature_index, broken, received)
    FROM samples AS s
    JOIN common AS c ON c.split = s.split AND c.common_feature_index = s.common_feature_index
    WHERE s.rowid >= low AND s.rowid < high AND NOT (s.click = 0 AND s.conversion = 1)
    ORDER BY s.rowid;
