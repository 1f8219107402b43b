# What the module makes of good input. The provider is mocked: no account, no network.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
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
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/mocked" }
  }
  mock_resource "aws_iam_openid_connect_provider" {
    defaults = { arn = "arn:aws:iam::111122223333:oidc-provider/created" }
  }
}

# The provider of a cluster in China.
mock_provider "aws" {
  alias = "china"
  mock_data "aws_partition" {
    defaults = { partition = "aws-cn" }
  }
  mock_data "aws_region" {
    defaults = { id = "cn-north-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_iam_openid_connect_provider" {
    defaults = { arn = "arn:aws-cn:iam::111122223333:oidc-provider/oidc.eks.cn-north-1.amazonaws.com.cn/id/0123456789ABCDEF0123456789ABCDEF" }
  }
}

variables {
  cluster_name    = "production"
  oidc_issuer_url = "https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
}

run "default" {
  command = plan

  assert {
    condition = jsondecode(output.read_policy) == {
      Version = "2012-10-17"
      Statement = [{
        Sid    = "ReadAuditLog"
        Effect = "Allow"
        Action = ["logs:FilterLogEvents"]
        Resource = [
          "arn:aws:logs:eu-central-1:111122223333:log-group:/aws/eks/production/cluster",
          "arn:aws:logs:eu-central-1:111122223333:log-group:/aws/eks/production/cluster:*",
        ]
      }]
    }
    error_message = "the permissions are not the least that the bridge needs: ${output.read_policy}"
  }
  assert {
    condition = jsondecode(output.trust_policy).Statement[0].Condition == {
      StringEquals = {
        "oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF:aud" = "sts.amazonaws.com"
        "oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF:sub" = "system:serviceaccount:audit-bridge:eks-audit-bridge"
      }
    }
    error_message = "the trust is not for exactly one service account: ${output.trust_policy}"
  }
  assert {
    condition     = jsondecode(output.trust_policy).Statement[0].Principal.Federated == data.aws_iam_openid_connect_provider.cluster[0].arn
    error_message = "the trust does not name the issuer's provider"
  }
  assert {
    condition     = aws_iam_role.bridge[0].assume_role_policy == output.trust_policy && aws_iam_role_policy.read[0].policy == output.read_policy
    error_message = "the role carries other documents than the outputs show"
  }
  assert {
    condition     = startswith(aws_iam_role.bridge[0].name, "eks-audit-production-eu-central-1-")
    error_message = "name: ${aws_iam_role.bridge[0].name}"
  }
  assert {
    condition     = length(aws_eks_pod_identity_association.bridge) == 0 && length(aws_iam_openid_connect_provider.cluster) == 0
    error_message = "IRSA with a registered issuer needs the role only"
  }
}

run "issuer_without_scheme_and_with_slash" {
  command = plan

  variables {
    oidc_issuer_url = "oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF/"
  }
  assert {
    condition     = output.trust_policy == run.default.trust_policy
    error_message = "the same issuer, written otherwise, gives another trust: ${output.trust_policy}"
  }
}

run "issuer_is_registered_on_request" {
  command = apply

  variables {
    create_oidc_provider = true
  }
  assert {
    condition     = aws_iam_openid_connect_provider.cluster[0].url == "https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
    error_message = "url: ${aws_iam_openid_connect_provider.cluster[0].url}"
  }
  assert {
    condition     = jsondecode(output.trust_policy).Statement[0].Principal.Federated == "arn:aws:iam::111122223333:oidc-provider/created"
    error_message = "the trust does not name the new provider"
  }
  assert {
    condition     = output.service_account_annotations["eks.amazonaws.com/role-arn"] == "arn:aws:iam::111122223333:role/mocked"
    error_message = "the annotation is wrong"
  }
  assert {
    condition = yamldecode(output.helm_values) == {
      bridge         = "eks"
      serviceAccount = { name = "eks-audit-bridge" }
      eks = {
        region       = "eu-central-1"
        clusterNames = ["production"]
        logGroups    = []
        stream       = ""
        roleArn      = "arn:aws:iam::111122223333:role/mocked"
      }
    }
    error_message = "values: ${output.helm_values}"
  }
}

run "several_log_groups" {
  command = apply

  variables {
    log_group_names = ["/aws/eks/production/cluster", "audit/all-clusters", "audit/all-clusters"]
  }
  assert {
    condition     = length(jsondecode(output.read_policy).Statement[0].Resource) == 4
    error_message = "two groups, each in both forms: ${output.read_policy}"
  }
  assert {
    condition     = length(yamldecode(output.helm_values).eks.clusterNames) == 0
    error_message = "the bridge wants one group per cluster: ${output.helm_values}"
  }
  assert {
    condition     = yamldecode(output.helm_values).eks.logGroups == ["/aws/eks/production/cluster", "audit/all-clusters"]
    error_message = "values: ${output.helm_values}"
  }
}

run "partition" {
  command   = plan
  providers = { aws = aws.china }

  variables {
    oidc_issuer_url = "https://oidc.eks.cn-north-1.amazonaws.com.cn/id/0123456789ABCDEF0123456789ABCDEF"
  }
  assert {
    condition     = jsondecode(output.read_policy).Statement[0].Resource[0] == "arn:aws-cn:logs:cn-north-1:111122223333:log-group:/aws/eks/production/cluster"
    error_message = "the partition is wrong: ${output.read_policy}"
  }
  assert {
    condition     = aws_iam_role.bridge[0].name != run.default.role_name
    error_message = "the same cluster name in another region gets the same role name"
  }
}

run "long_cluster_name" {
  command = plan

  variables {
    cluster_name = "a-cluster-name-of-one-hundred-characters-a-cluster-name-of-one-hundred-characters-a-cluster-name-one"
  }
  assert {
    condition     = length(aws_iam_role.bridge[0].name) <= 64
    error_message = "IAM refuses this name: ${aws_iam_role.bridge[0].name}"
  }
}

run "long_cluster_name_with_the_same_beginning" {
  command = plan

  variables {
    cluster_name = "a-cluster-name-of-one-hundred-characters-a-cluster-name-of-one-hundred-characters-a-cluster-name-two"
  }
  assert {
    condition     = aws_iam_role.bridge[0].name != run.long_cluster_name.role_name
    error_message = "two clusters share a role name"
  }
}

run "pod_identity" {
  command = plan

  variables {
    identity        = "pod_identity"
    oidc_issuer_url = null
  }
  assert {
    condition = jsondecode(output.trust_policy).Statement[0] == {
      Sid       = "BridgeServiceAccount"
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "pods.eks.amazonaws.com" }
      Condition = {
        StringEquals = {
          "aws:RequestTag/eks-cluster-arn"            = "arn:aws:eks:eu-central-1:111122223333:cluster/production"
          "aws:RequestTag/kubernetes-namespace"       = "audit-bridge"
          "aws:RequestTag/kubernetes-service-account" = "eks-audit-bridge"
        }
      }
    }
    error_message = "the trust is not for exactly one service account of this cluster: ${output.trust_policy}"
  }
  assert {
    condition     = aws_eks_pod_identity_association.bridge[0].service_account == "eks-audit-bridge" && aws_eks_pod_identity_association.bridge[0].namespace == "audit-bridge"
    error_message = "the association is for somebody else"
  }
  assert {
    condition     = length(output.service_account_annotations) == 0
    error_message = "Pod Identity needs no annotation"
  }
}

run "options" {
  command = plan

  variables {
    role_name            = "audit"
    role_path            = "/security/"
    permissions_boundary = "arn:aws:iam::111122223333:policy/boundary"
    namespace            = "falco"
    service_account      = "bridge"
    tags                 = { team = "security" }
  }
  assert {
    condition = (
      aws_iam_role.bridge[0].name == "audit" && aws_iam_role.bridge[0].path == "/security/" &&
      aws_iam_role.bridge[0].permissions_boundary == "arn:aws:iam::111122223333:policy/boundary" &&
      aws_iam_role.bridge[0].tags == tomap({ team = "security" })
    )
    error_message = "an option is lost"
  }
  assert {
    condition     = strcontains(output.trust_policy, "\"system:serviceaccount:falco:bridge\"")
    error_message = "trust: ${output.trust_policy}"
  }
}

run "nothing" {
  command = apply

  variables {
    create = false
  }
  assert {
    condition     = length(aws_iam_role.bridge) + length(aws_iam_role_policy.read) + length(aws_iam_openid_connect_provider.cluster) == 0
    error_message = "create = false creates something"
  }
  assert {
    condition     = output.role_arn == null && length(output.service_account_annotations) == 0
    error_message = "there is no role to tell of"
  }
}
