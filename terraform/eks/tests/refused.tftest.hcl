# What the module refuses: each would give a role that AWS creates and the bridge cannot use.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_iam_openid_connect_provider" {
    defaults = { arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF" }
  }
}

variables {
  cluster_name    = "production"
  oidc_issuer_url = "https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
}

run "cluster_name_an_arn" {
  command         = plan
  expect_failures = [var.cluster_name]
  variables {
    cluster_name = "arn:aws:eks:eu-central-1:111122223333:cluster/production"
  }
}

run "cluster_name_empty" {
  command         = plan
  expect_failures = [var.cluster_name]
  variables {
    cluster_name = ""
  }
}

run "cluster_name_101_characters" {
  command         = plan
  expect_failures = [var.cluster_name]
  variables {
    cluster_name = "xyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
  }
}

run "identity_unknown" {
  command         = plan
  expect_failures = [var.identity]
  variables {
    identity = "node"
  }
}

run "oidc_issuer_url_plain_http" {
  command         = plan
  expect_failures = [var.oidc_issuer_url]
  variables {
    oidc_issuer_url = "http://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
  }
}

run "oidc_issuer_url_two_slashes" {
  command         = plan
  expect_failures = [var.oidc_issuer_url]
  variables {
    oidc_issuer_url = "https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF//"
  }
}

run "oidc_issuer_url_without_its_id" {
  command         = plan
  expect_failures = [var.oidc_issuer_url]
  variables {
    oidc_issuer_url = "https://oidc.eks.eu-central-1.amazonaws.com"
  }
}

run "oidc_issuer_url_the_api_server_s_endpoint" {
  command         = plan
  expect_failures = [var.oidc_issuer_url]
  variables {
    oidc_issuer_url = "https://0123456789ABCDEF0123456789ABCDEF.gr7.eu-central-1.eks.amazonaws.com"
  }
}

run "oidc_issuer_url_the_provider_s_arn" {
  command         = plan
  expect_failures = [var.oidc_issuer_url]
  variables {
    oidc_issuer_url = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
  }
}

run "namespace_a_wildcard" {
  command         = plan
  expect_failures = [var.namespace]
  variables {
    namespace = "*"
  }
}

run "namespace_capitals" {
  command         = plan
  expect_failures = [var.namespace]
  variables {
    namespace = "Audit"
  }
}

run "service_account_a_whole_subject" {
  command         = plan
  expect_failures = [var.service_account]
  variables {
    service_account = "system:serviceaccount:audit-bridge:eks-audit-bridge"
  }
}

run "service_account_a_wildcard" {
  command         = plan
  expect_failures = [var.service_account]
  variables {
    service_account = "*"
  }
}

run "log_group_names_a_trailing_slash" {
  command         = plan
  expect_failures = [var.log_group_names]
  variables {
    log_group_names = ["/aws/eks/production/cluster/"]
  }
}

run "log_group_names_an_arn" {
  command         = plan
  expect_failures = [var.log_group_names]
  variables {
    log_group_names = ["arn:aws:logs:eu-central-1:111122223333:log-group:/aws/eks/production/cluster:*"]
  }
}

run "log_group_names_a_wildcard" {
  command         = plan
  expect_failures = [var.log_group_names]
  variables {
    log_group_names = ["/aws/eks/*/cluster"]
  }
}

run "role_name_65_characters" {
  command         = plan
  expect_failures = [var.role_name]
  variables {
    role_name = "rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr"
  }
}

run "role_name_a_path" {
  command         = plan
  expect_failures = [var.role_name]
  variables {
    role_name = "a/b"
  }
}

run "role_path_without_slashes" {
  command         = plan
  expect_failures = [var.role_path]
  variables {
    role_path = "security"
  }
}

run "permissions_boundary_a_name" {
  command         = plan
  expect_failures = [var.permissions_boundary]
  variables {
    permissions_boundary = "boundary"
  }
}

run "permissions_boundary_without_a_name" {
  command         = plan
  expect_failures = [var.permissions_boundary]
  variables {
    permissions_boundary = "arn:aws:iam::111122223333:policy/"
  }
}

run "tags_aws_s_own_prefix" {
  command         = plan
  expect_failures = [var.tags]
  variables {
    tags = { "aws:x" = "y" }
  }
}

run "irsa_without_an_issuer" {
  command         = plan
  expect_failures = [data.aws_iam_openid_connect_provider.cluster]
  variables {
    oidc_issuer_url = null
  }
}

run "registering_no_issuer" {
  command         = plan
  expect_failures = [aws_iam_openid_connect_provider.cluster]
  variables {
    create_oidc_provider = true
    oidc_issuer_url      = null
  }
}

run "log_group_arns_a_name" {
  command         = plan
  expect_failures = [var.log_group_arns]
  variables {
    log_group_arns = ["/aws/eks/far/cluster"]
  }
}

run "log_group_arns_with_its_star" {
  command         = plan
  expect_failures = [var.log_group_arns]
  variables {
    log_group_arns = ["arn:aws:logs:eu-central-1:444455556666:log-group:/aws/eks/far/cluster:*"]
  }
}

run "log_group_arns_wildcard" {
  command         = plan
  expect_failures = [var.log_group_arns]
  variables {
    log_group_arns = ["arn:aws:logs:eu-central-1:444455556666:log-group:/aws/eks/*/cluster"]
  }
}

run "assume_role_arns_a_name" {
  command         = plan
  expect_failures = [var.assume_role_arns]
  variables {
    assume_role_arns = ["reader"]
  }
}

run "assume_role_arns_wildcard" {
  command         = plan
  expect_failures = [var.assume_role_arns]
  variables {
    assume_role_arns = ["arn:aws:iam::444455556666:role/*"]
  }
}

run "assume_role_arns_with_a_comma" {
  command         = plan
  expect_failures = [var.assume_role_arns]
  variables {
    assume_role_arns = ["arn:aws:iam::444455556666:role/one,two"]
  }
}

run "assume_role_arns_a_user" {
  command         = plan
  expect_failures = [var.assume_role_arns]
  variables {
    assume_role_arns = ["arn:aws:iam::444455556666:user/reader"]
  }
}

run "assume_role_arns_two_of_one_account" {
  command         = plan
  expect_failures = [var.assume_role_arns]
  variables {
    assume_role_arns = ["arn:aws:iam::444455556666:role/one", "arn:aws:iam::444455556666:role/two"]
  }
}

run "assume_role_external_id_one_character" {
  command         = plan
  expect_failures = [var.assume_role_external_id]
  variables {
    assume_role_external_id = "a"
  }
}

run "assume_role_external_id_a_blank" {
  command         = plan
  expect_failures = [var.assume_role_external_id]
  variables {
    assume_role_external_id = "our id"
  }
}

run "stream_arn_a_name" {
  command         = plan
  expect_failures = [var.stream_arn]
  variables {
    stream_arn = "audit"
  }
}

run "stream_arn_a_consumer" {
  command         = plan
  expect_failures = [var.stream_arn]
  variables {
    stream_arn = "arn:aws:kinesis:eu-central-1:111122223333:stream/audit/consumer/bridge:1"
  }
}

run "stream_arn_a_delivery_stream" {
  command         = plan
  expect_failures = [var.stream_arn]
  variables {
    stream_arn = "arn:aws:firehose:eu-central-1:111122223333:deliverystream/audit"
  }
}

run "stream_name_an_arn" {
  command         = plan
  expect_failures = [var.stream_name]
  variables {
    create_stream = true
    stream_name   = "arn:aws:kinesis:eu-central-1:111122223333:stream/audit"
  }
}

run "stream_shards_none" {
  command         = plan
  expect_failures = [var.stream_shards]
  variables {
    create_stream = true
    stream_shards = 0
  }
}

run "stream_shards_a_half" {
  command         = plan
  expect_failures = [var.stream_shards]
  variables {
    create_stream = true
    stream_shards = 1.5
  }
}

run "stream_retention_hours_an_hour" {
  command         = plan
  expect_failures = [var.stream_retention_hours]
  variables {
    create_stream          = true
    stream_retention_hours = 1
  }
}

run "stream_retention_hours_more_than_a_year" {
  command         = plan
  expect_failures = [var.stream_retention_hours]
  variables {
    create_stream          = true
    stream_retention_hours = 8761
  }
}

run "stream_kms_key_arn_an_alias" {
  command         = plan
  expect_failures = [var.stream_kms_key_arn]
  variables {
    create_stream      = true
    stream_kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:alias/audit"
  }
}

run "stream_kms_key_arn_an_id" {
  command         = plan
  expect_failures = [var.stream_kms_key_arn]
  variables {
    create_stream      = true
    stream_kms_key_arn = "1234abcd-12ab-34cd-56ef-1234567890ab"
  }
}

run "subscription_filter_name_with_a_colon" {
  command         = plan
  expect_failures = [var.subscription_filter_name]
  variables {
    create_stream            = true
    subscription_filter_name = "audit:bridge"
  }
}

run "subscription_filter_pattern_json_loses_cut_events" {
  command         = plan
  expect_failures = [var.subscription_filter_pattern]
  variables {
    create_stream               = true
    subscription_filter_pattern = "{ $.kind = \"Event\" }"
  }
}

run "subscription_filter_pattern_columns" {
  command         = plan
  expect_failures = [var.subscription_filter_pattern]
  variables {
    create_stream               = true
    subscription_filter_pattern = "[kind, rest]"
  }
}

run "subscription_distribution_unknown" {
  command         = plan
  expect_failures = [var.subscription_distribution]
  variables {
    create_stream             = true
    subscription_distribution = "RoundRobin"
  }
}

run "writer_role_name_65_characters" {
  command         = plan
  expect_failures = [var.writer_role_name]
  variables {
    create_stream    = true
    writer_role_name = "xyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
  }
}

# What only becomes wrong together.

run "nothing_to_read" {
  command         = plan
  expect_failures = [aws_iam_role.bridge]
  variables {
    read_log_groups = false
  }
}

run "unmask_of_a_stream" {
  command         = plan
  expect_failures = [aws_iam_role.bridge]
  variables {
    create_stream = true
    unmask        = true
  }
}

run "log_groups_of_other_accounts_that_may_not_be_read" {
  command         = plan
  expect_failures = [aws_iam_role.bridge]
  variables {
    create_stream   = true
    read_log_groups = false
    log_group_arns  = ["arn:aws:logs:eu-central-1:444455556666:log-group:/aws/eks/far/cluster"]
  }
}

run "a_role_without_a_log_group_of_its_account" {
  command         = plan
  expect_failures = [aws_iam_role.bridge]
  variables {
    assume_role_arns = ["arn:aws:iam::444455556666:role/reader"]
    log_group_arns   = ["arn:aws:logs:eu-central-1:777788889999:log-group:/aws/eks/far/cluster"]
  }
}

run "an_external_id_for_nobody" {
  command         = plan
  expect_failures = [aws_iam_role.bridge]
  variables {
    assume_role_external_id = "ours"
  }
}

run "two_streams" {
  command         = plan
  expect_failures = [aws_iam_role.bridge]
  variables {
    create_stream = true
    stream_arn    = "arn:aws:kinesis:eu-central-1:111122223333:stream/audit"
  }
}

run "shards_of_a_stream_that_is_there" {
  command         = plan
  expect_failures = [aws_iam_role.bridge]
  variables {
    stream_arn    = "arn:aws:kinesis:eu-central-1:111122223333:stream/audit"
    stream_shards = 2
  }
}

run "a_retention_without_a_stream" {
  command         = plan
  expect_failures = [aws_iam_role.bridge]
  variables {
    stream_retention_hours = 48
  }
}

run "a_key_without_a_stream" {
  command         = plan
  expect_failures = [aws_iam_role.bridge]
  variables {
    stream_kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
  }
}

run "a_key_of_another_region" {
  command         = plan
  expect_failures = [aws_iam_role.bridge]
  variables {
    create_stream      = true
    stream_kms_key_arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
  }
}

run "a_stream_of_another_region" {
  command         = plan
  expect_failures = [aws_iam_role.writer]
  variables {
    stream_arn = "arn:aws:kinesis:us-east-1:111122223333:stream/audit"
  }
}

run "a_stream_of_another_account" {
  command         = plan
  expect_failures = [aws_iam_role.writer]
  variables {
    stream_arn = "arn:aws:kinesis:eu-central-1:444455556666:stream/audit"
  }
}
