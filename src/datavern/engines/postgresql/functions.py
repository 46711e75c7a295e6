"""Functions of PostgreSQL that leave nothing behind in their session: the allow-list of `statements.effect`.

A function that is missing here costs a reset after each statement that calls it, and nothing else. Sources: PostgreSQL
18 documentation, chapter 9 (Functions and Operators), and `pg_proc` of that version.

Not here, on purpose: sequence functions (they set `lastval()`), `set_config`, `setseed`, session-level advisory locks,
everything that signals other sessions, large objects, replication, files, `dblink`, and what runs SQL that it is
given as text (`query_to_xml`, `ts_stat`, `ts_rewrite`).
"""

from __future__ import annotations

__all__ = ["CLEAN_FUNCTIONS"]

_AGGREGATES_AND_WINDOWS = """
any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or count every json_agg json_agg_strict json_arrayagg
json_object_agg json_object_agg_unique json_objectagg jsonb_agg jsonb_agg_strict jsonb_object_agg
jsonb_object_agg_unique max min range_agg range_intersect_agg string_agg sum xmlagg corr covar_pop covar_samp regr_avgx
regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp variance
var_pop var_samp mode percentile_cont percentile_disc rank dense_rank percent_rank cume_dist row_number ntile lag lead
first_value last_value nth_value
"""
_CONDITIONS_AND_TYPES = """
coalesce nullif greatest least num_nonnulls num_nulls cast pg_typeof format_type enum_first enum_last enum_range
treat xmlconcat xmlelement xmlforest xmlparse xmlserialize xmlexists xpath
text name int2 int4 int8 float4 float8 bool date json jsonb uuid bytea money oid regclass regtype timestamptz timetz
varbit bpchar
"""
_NUMBERS = """
abs cbrt ceil ceiling degrees div erf erfc exp factorial floor gamma gcd lcm lgamma ln log log10 min_scale mod pi power
radians random round scale sign sqrt trim_scale trunc width_bucket acos acosd asin asind atan atand atan2 atan2d cos
cosd cot cotd sin sind tan tand sinh cosh tanh asinh acosh atanh random_normal
"""
_TEXT_AND_BYTES = """
ascii bit_count bit_length btrim casefold char_length character_length chr concat concat_ws convert convert_from
convert_to crc32 crc32c decode encode format get_bit get_byte initcap left length lower lpad ltrim md5 normalize
octet_length overlay parse_ident position quote_ident quote_literal quote_nullable regexp_count regexp_instr regexp_like
regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat replace
reverse right rpad rtrim set_bit set_byte sha224 sha256 sha384 sha512 split_part starts_with string_to_array
string_to_table strpos substr substring to_ascii to_bin to_char to_date to_hex to_number to_oct to_timestamp translate
trim unicode_assigned unistr upper collation
"""
_TIME = """
age clock_timestamp current_time current_timestamp date_add date_bin date_part date_subtract date_trunc extract isfinite
justify_days justify_hours justify_interval localtime localtimestamp make_date make_interval make_time make_timestamp
make_timestamptz now overlaps statement_timestamp timeofday timezone transaction_timestamp
"""
_JSON = """
array_to_json row_to_json to_json to_jsonb json_array json_array_elements json_array_elements_text json_array_length
json_build_array json_build_object json_each json_each_text json_exists json_extract_path json_extract_path_text
json_object json_object_keys json_populate_record json_populate_recordset json_query json_scalar json_serialize
json_strip_nulls json_table json_to_record json_to_recordset json_typeof json_value jsonb_array_elements
jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text
jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_keys jsonb_path_exists
jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query jsonb_path_query_array
jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record
jsonb_populate_record_valid jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls
jsonb_to_record jsonb_to_recordset jsonb_typeof
"""
_ARRAYS_AND_RANGES = """
array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions
array_prepend array_remove array_replace array_reverse array_sample array_shuffle array_sort array_to_string array_upper
cardinality generate_series generate_subscripts trim_array unnest datemultirange daterange int4multirange int4range
int8multirange int8range isempty lower_inc lower_inf multirange nummultirange numrange range_merge tsmultirange tsrange
tstzmultirange tstzrange upper_inc upper_inf
"""
_TEXT_SEARCH = """
array_to_tsvector get_current_ts_config json_to_tsvector jsonb_to_tsvector numnode phraseto_tsquery plainto_tsquery
querytree setweight strip to_tsquery to_tsvector ts_debug ts_delete ts_filter ts_headline ts_lexize ts_parse ts_rank
ts_rank_cd tsquery_phrase tsvector_to_array websearch_to_tsquery
"""
_IDENTIFIERS_AND_NETWORK = """
gen_random_uuid uuidv4 uuidv7 uuid_extract_timestamp uuid_extract_version abbrev broadcast family host hostmask
inet_merge inet_same_family masklen netmask network set_masklen macaddr8_set7bit
"""
_THE_SESSION_READ_ONLY = """
current_catalog current_database current_query current_role current_schema current_schemas current_setting current_user
inet_client_addr inet_client_port inet_server_addr inet_server_port pg_backend_pid pg_conf_load_time
pg_current_snapshot pg_current_xact_id pg_current_xact_id_if_assigned pg_is_in_recovery pg_postmaster_start_time
pg_snapshot_xip pg_snapshot_xmax pg_snapshot_xmin pg_trigger_depth pg_visible_in_snapshot pg_xact_status session_user
system_user txid_current txid_current_if_assigned txid_current_snapshot txid_snapshot_xmax txid_snapshot_xmin user
version pg_client_encoding pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp
pg_current_wal_insert_lsn pg_current_wal_lsn pg_wal_lsn_diff pg_control_system pg_control_checkpoint
pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared
"""
_CATALOGUE_READ_ONLY = """
col_description has_any_column_privilege has_column_privilege has_database_privilege has_function_privilege
has_schema_privilege has_sequence_privilege has_table_privilege has_type_privilege obj_description pg_column_size
pg_database_size pg_encoding_to_char pg_get_constraintdef pg_get_expr pg_get_functiondef pg_get_indexdef
pg_get_partkeydef pg_get_ruledef pg_get_serial_sequence pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_has_role
pg_index_column_has_property pg_indexes_size pg_relation_size pg_size_bytes pg_size_pretty pg_table_is_visible
pg_table_size pg_total_relation_size pg_type_is_visible row_security_active shobj_description to_regclass
to_regnamespace to_regproc to_regrole to_regtype
"""

CLEAN_FUNCTIONS = frozenset(
    name
    for names in (
        _AGGREGATES_AND_WINDOWS,
        _CONDITIONS_AND_TYPES,
        _NUMBERS,
        _TEXT_AND_BYTES,
        _TIME,
        _JSON,
        _ARRAYS_AND_RANGES,
        _TEXT_SEARCH,
        _IDENTIFIERS_AND_NETWORK,
        _THE_SESSION_READ_ONLY,
        _CATALOGUE_READ_ONLY,
    )
    for name in names.split()
)
"""Names as `pg_catalog` has them."""
