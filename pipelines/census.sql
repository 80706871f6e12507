-- Census-Income (KDD) -> people with labels, one row each.
--
-- In:  people: the files' values as text, without the spaces around them; part ("data" or "test") and line (from 0) say
--      where a person stands
-- Out: table census
CREATE TABLE census AS
SELECT
    line,
    -- Halves of the test file by parity of the line: no value of a row decides where it goes.
    CASE WHEN part = 'data' THEN 'train' WHEN line % 2 = 0 THEN 'validation' ELSE 'test' END AS split,

    -- Labels.
    CAST(CASE WHEN income = '50000+.' THEN 1 ELSE 0 END AS BIGINT) AS income_50k,
    CAST(CASE WHEN education IN (
        'Associates degree-occup /vocational', 'Associates degree-academic program', 'Bachelors degree(BA AB BS)',
        'Masters degree(MA MS MEng MEd MSW MBA)', 'Prof school degree (MD DDS DVM LLB JD)', 'Doctorate degree(PhD EdD)'
    ) THEN 1 ELSE 0 END AS BIGINT) AS college,
    CAST(CASE WHEN marital_stat = 'Never married' THEN 1 ELSE 0 END AS BIGINT) AS never_married,

    -- Numbers.
    CAST(age AS DOUBLE) AS age,
    CAST(wage_per_hour AS DOUBLE) AS wage_per_hour,
    CAST(capital_gains AS DOUBLE) AS capital_gains,
    CAST(capital_losses AS DOUBLE) AS capital_losses,
    CAST(dividends_from_stocks AS DOUBLE) AS dividends_from_stocks,
    CAST(num_persons_worked_for_employer AS DOUBLE) AS num_persons_worked_for_employer,
    CAST(weeks_worked_in_year AS DOUBLE) AS weeks_worked_in_year,

    -- Categories. "Not in universe" (the question does not apply) is one of them; "?" is a missing value.
    class_of_worker,
    industry_code,
    occupation_code,
    education,
    enrolled_in_edu_inst_last_wk,
    major_industry_code,
    major_occupation_code,
    race,
    hispanic_origin,
    sex,
    member_of_a_labor_union,
    reason_for_unemployment,
    full_or_part_time_employment_stat,
    tax_filer_stat,
    region_of_previous_residence,
    coalesce(nullif(state_of_previous_residence, '?'), '') AS state_of_previous_residence,
    detailed_household_and_family_stat,
    detailed_household_summary_in_household,
    coalesce(nullif(migration_code_change_in_msa, '?'), '') AS migration_code_change_in_msa,
    coalesce(nullif(migration_code_change_in_reg, '?'), '') AS migration_code_change_in_reg,
    coalesce(nullif(migration_code_move_within_reg, '?'), '') AS migration_code_move_within_reg,
    live_in_this_house_1_year_ago,
    coalesce(nullif(migration_prev_res_in_sunbelt, '?'), '') AS migration_prev_res_in_sunbelt,
    family_members_under_18,
    coalesce(nullif(country_of_birth_father, '?'), '') AS country_of_birth_father,
    coalesce(nullif(country_of_birth_mother, '?'), '') AS country_of_birth_mother,
    coalesce(nullif(country_of_birth_self, '?'), '') AS country_of_birth_self,
    citizenship,
    own_business_or_self_employed,
    fill_inc_questionnaire_for_veterans_admin,
    veterans_benefits,
    "year"
FROM people;
