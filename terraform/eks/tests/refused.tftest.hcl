# What the module refuses: each would give a role that AWS creates and the bridge cannot use.

mock_provider "aws" {}

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
