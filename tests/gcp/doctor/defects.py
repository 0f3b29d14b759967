"""What a project may lack: how it comes about, and words of the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.fakes.project import (
    BUCKET,
    BUILDER,
    FOLDER,
    NODES,
    NUMBER,
    ONE_CLUSTER,
    OPERATIONS_ROLE,
    POD_ROLE,
    PODS,
    PROJECT,
    REAPER,
    REAPER_ROLE,
    FakeProject,
    pods_bound,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# What the condition once was: IAM knows no type of this name.
ALWAYS = (
    "resource.type != 'container.googleapis.com/Cluster' || "
    f"resource.name == 'projects/{PROJECT}/locations/europe-west4-a/clusters/searches'"
)
# The defect; what takes it away from a project that has all; words of its mend.
DEFECTS: dict[str, tuple[Callable[[FakeProject], Any], str]] = {
    "no project": (
        lambda one: setattr(one, "there", False),
        (
            f"gcloud projects add-iam-policy-binding {PROJECT} --member=user:YOU "
            "--role=roles/viewer"
        ),
    ),
    "project to be deleted": (
        lambda one: setattr(one, "state", "DELETE_REQUESTED"),
        f"gcloud projects undelete {PROJECT}",
    ),
    "no billing": (
        lambda one: setattr(one, "billing", False),
        f"gcloud billing projects link {PROJECT} --billing-account=ACCOUNT",
    ),
    "an API is not enabled": (
        lambda one: one.enabled.discard("cloudbuild.googleapis.com"),
        f"gcloud services enable cloudbuild.googleapis.com --project={PROJECT}",
    ),
    "the user may not create clusters": (
        lambda one: one.lacking.add("container.clusters.create"),
        (
            f"gcloud projects add-iam-policy-binding {PROJECT} --member=user:YOU "
            "--role=roles/container.admin"
        ),
    ),
    "the user may not use the nodes' account": (
        lambda one: one.may_not_act_as.add(NODES),
        (
            f"gcloud iam service-accounts add-iam-policy-binding {NODES} "
            f"--project={PROJECT} --member=user:YOU --role=roles/iam.serviceAccountUser"
        ),
    ),
    "no account for the nodes": (
        lambda one: one.accounts.clear(),
        f"gcloud iam service-accounts create dask-hpsearch-nodes --project={PROJECT}",
    ),
    "the nodes may not pull": (
        lambda one: one.roles.pop("roles/artifactregistry.reader"),
        (
            f"gcloud projects add-iam-policy-binding {PROJECT} "
            f"--member=serviceAccount:{NODES} --role=roles/artifactregistry.reader"
        ),
    ),
    "the nodes may not be nodes": (
        lambda one: one.roles.pop("roles/container.defaultNodeServiceAccount"),
        (
            f"--member=serviceAccount:{NODES} "
            "--role=roles/container.defaultNodeServiceAccount"
        ),
    ),
    "no role for the reaper": (
        lambda one: one.own_roles.pop(REAPER_ROLE),
        f"gcloud iam roles create daskHpsearchReaper --project={PROJECT} --permissions=",
    ),
    "the reaper's role lacks something": (
        lambda one: one.own_roles[REAPER_ROLE].remove("container.clusters.delete"),
        f"gcloud iam roles update daskHpsearchReaper --project={PROJECT} --permissions=",
    ),
    "the reaper has not its role": (
        lambda one: one.policy.conditional.clear(),
        f'--member="{REAPER}" --role={REAPER_ROLE} --condition=',
    ),
    "builds may not push": (
        lambda one: one.roles.pop("roles/artifactregistry.writer"),
        f"--member=serviceAccount:{BUILDER} --role=roles/artifactregistry.writer",
    ),
    "builds may not read their sources": (
        lambda one: one.bucket_roles["roles/storage.objectUser"].pop(),
        (
            f"gcloud storage buckets add-iam-policy-binding gs://{BUCKET} "
            f"--member=serviceAccount:{BUILDER} --role=roles/storage.objectUser"
        ),
    ),
    "no bucket": (
        lambda one: setattr(one, "bucket", None),
        (
            f"gcloud storage buckets create gs://{BUCKET} --project={PROJECT} "
            "--location=europe-west4 --uniform-bucket-level-access"
        ),
    ),
    "a bucket far away": (
        lambda one: one.bucket.update(location="US-CENTRAL1"),
        (
            f"gcloud storage buckets create gs://ANOTHER --project={PROJECT} "
            "--location=europe-west4"
        ),
    ),
    "a bucket with rights for single objects": (
        lambda one: one.bucket.pop("iamConfiguration"),
        f"gcloud storage buckets update gs://{BUCKET} --uniform-bucket-level-access",
    ),
    "the user may not write to the bucket": (
        lambda one: one.lacking.add("storage.objects.create"),
        (
            f"gcloud storage buckets add-iam-policy-binding gs://{BUCKET} "
            "--member=user:YOU --role=roles/storage.objectUser"
        ),
    ),
    "no Workload Identity binding": (
        lambda one: one.bucket_policy.conditional.clear(),
        (
            f"gcloud storage buckets add-iam-policy-binding gs://{BUCKET} "
            f"--member={PODS} --role=roles/storage.objectUser"
        ),
    ),
    "no network": (
        lambda one: one.networks.clear(),
        f"gcloud compute networks create default --project={PROJECT}",
    ),
    "private nodes do not reach Google": (
        lambda one: setattr(one, "private_access", False),
        (
            f"gcloud compute networks subnets update default --project={PROJECT} "
            "--region=europe-west4 --enable-private-ip-google-access"
        ),
    ),
    "no such machine in the zone": (
        lambda one: one.machine_types.discard("n2-standard-8"),
        (
            f"gcloud compute machine-types list --project={PROJECT} "
            "--filter=name=n2-standard-8"
        ),
    ),
    "a quota is too small": (
        lambda one: one.quotas.update(PREEMPTIBLE_CPUS=(24, 8)),
        (
            f"gcloud beta quotas preferences create --project={PROJECT} "
            "--service=compute.googleapis.com --dimensions=region=europe-west4 "
            "--quota-id=PREEMPTIBLE-CPUS-per-project-region --preferred-value=88"
        ),
    ),
    "the user may not use the project's quota": (
        lambda one: one.lacking.add("serviceusage.services.use"),
        "--member=user:YOU --role=roles/serviceusage.serviceUsageConsumer",
    ),
    "the user may not build": (
        lambda one: one.lacking.add("cloudbuild.builds.create"),
        "--member=user:YOU --role=roles/cloudbuild.builds.editor",
    ),
    "the user may not keep images": (
        lambda one: one.lacking.add("artifactregistry.repositories.create"),
        "--member=user:YOU --role=roles/artifactregistry.admin",
    ),
    "the nodes' account is disabled": (
        lambda one: one.disabled_accounts.add(NODES),
        f"gcloud iam service-accounts enable {NODES} --project={PROJECT}",
    ),
    "the reaper's role was deleted": (
        lambda one: one.deleted_roles.add(REAPER_ROLE),
        f"gcloud iam roles undelete daskHpsearchReaper --project={PROJECT}",
    ),
    "no role for operations": (
        lambda one: one.own_roles.pop(OPERATIONS_ROLE),
        (
            f"gcloud iam roles create daskHpsearchReaperOperations --project={PROJECT} "
            "--permissions=container.operations.get"
        ),
    ),
    "the role for operations is empty": (
        lambda one: one.own_roles[OPERATIONS_ROLE].clear(),
        f"gcloud iam roles update daskHpsearchReaperOperations --project={PROJECT}",
    ),
    "the reaper may not see operations": (
        lambda one: one.roles.pop(OPERATIONS_ROLE),
        f'--member="{REAPER}" --role={OPERATIONS_ROLE} --condition=None',
    ),
    "the reaper's role has no condition": (
        lambda one: bind_reaper(one, None, keep=True),
        (
            f"gcloud projects remove-iam-policy-binding {PROJECT} "
            f'--member="{REAPER}" --role={REAPER_ROLE} --condition=None'
        ),
    ),
    "the reaper's condition always holds": (
        lambda one: bind_reaper(one, ALWAYS),
        (
            f'add-iam-policy-binding {PROJECT} --member="{REAPER}" '
            f'--role={REAPER_ROLE} --condition="expression={ONE_CLUSTER},title='
        ),
    ),
    "the reaper's condition is of the regional name": (
        lambda one: bind_reaper(one, ONE_CLUSTER.replace("/zones/", "/locations/")),
        f'--condition="expression={ONE_CLUSTER},title=',
    ),
    "the reaper's condition is of another cluster": (
        lambda one: bind_reaper(one, ONE_CLUSTER.replace("/searches", "/theirs")),
        f'--condition="expression={ONE_CLUSTER},title=',
    ),
    "the reaper may delete another cluster too": (
        lambda one: bind_reaper(
            one, ONE_CLUSTER.replace("/searches", "/theirs"), keep=True
        ),
        (
            f"gcloud projects remove-iam-policy-binding {PROJECT} "
            f'--member="{REAPER}" --role={REAPER_ROLE} --condition="expression='
        ),
    ),
    "the reaper administers all clusters": (
        lambda one: make_admin(one, keep=True),
        (
            f"gcloud projects remove-iam-policy-binding {PROJECT} "
            f'--member="{REAPER}" --role=roles/container.admin --condition=None'
        ),
    ),
    "the reaper administers all clusters and has no role of its own": (
        lambda one: make_admin(one, keep=False),
        (
            f"--role={OPERATIONS_ROLE} --condition=None && gcloud projects "
            f'remove-iam-policy-binding {PROJECT} --member="{REAPER}" '
            "--role=roles/container.admin --condition=None"
        ),
    ),
    "the reaper owns the project": (
        lambda one: one.roles.update({"roles/owner": ["user:ada", REAPER]}),
        (
            f"gcloud projects remove-iam-policy-binding {PROJECT} "
            f'--member="{REAPER}" --role=roles/owner --condition=None'
        ),
    ),
    "another cluster's reaper has the role": (
        lambda one: one.policy.conditional[0].update(
            members=[REAPER.replace("searches", "theirs")]
        ),
        f'--member="{REAPER}" --role={REAPER_ROLE} --condition=',
    ),
    "a binding of another project's pool": (
        lambda one: replace_pods(one, PODS.replace(NUMBER, "987654321")),
        f"--member={PODS} --role=roles/storage.objectUser --condition=",
    ),
    "pods of another namespace": (
        lambda one: replace_pods(one, f"{PODS}-of-others"),
        f"--member={PODS} --role=roles/storage.objectUser --condition=",
    ),
    "the pods' condition is of another folder": (
        lambda one: replace_pods(one, PODS, FOLDER.replace("/runs/", "/theirs/")),
        f'--condition="expression={FOLDER},title=one-folder"',
    ),
    "the pods may not list their folder": (
        lambda one: replace_pods(one, PODS, FOLDER.partition(" || ")[2]),
        f'--condition="expression={FOLDER},title=one-folder"',
    ),
    "the channel's version is too old for a longer notice": (
        lambda one: one.channels.update(REGULAR="1.35.0-gke.1170999"),
        f"gcloud container get-server-config --project={PROJECT} --location=europe-west4-a",
    ),
    "no subnetwork in the region": (
        lambda one: one.subnetworks.clear(),
        (
            f"gcloud compute networks subnets create default --project={PROJECT} "
            "--network=default --region=europe-west4"
        ),
    ),
}
# These hide others, or are two states of one thing.
HIDING = {
    "no bucket",
    "no account for the nodes",
    "no network",
    "no role for the reaper",
    "no project",
    "project to be deleted",
    "the user may not use the project's quota",
    "no role for operations",
    "the reaper's role was deleted",
    "no subnetwork in the region",
    *(name for name in DEFECTS if "condition" in name or "another" in name),
    "the pods may not list their folder",
    "pods of another namespace",
    "the reaper may delete another cluster too",
    "the reaper administers all clusters",
    "the reaper administers all clusters and has no role of its own",
    "the reaper owns the project",
}


def bind_reaper(
    project: FakeProject, expression: str | None, *, keep: bool = False
) -> None:
    """Bind the reaper's role under another condition, instead of the right one or besides."""
    if not keep:
        project.policy.conditional.clear()
    if expression is None:
        project.roles[REAPER_ROLE] = [REAPER]
        return
    condition = {"title": "mine", "expression": expression}
    wrong = {"role": REAPER_ROLE, "members": [REAPER], "condition": condition}
    project.policy.conditional.append(wrong)


def make_admin(project: FakeProject, *, keep: bool) -> None:
    """Grant the reaper what it needs, and much more, by a role of GKE."""
    project.roles["roles/container.admin"] = [REAPER]
    if not keep:
        project.policy.conditional.clear()
        del project.roles[OPERATIONS_ROLE]


def replace_pods(
    project: FakeProject, member: str, expression: str | None = None
) -> None:
    """Give the pods' role on the bucket to another principal, or under a condition."""
    project.bucket_policy.conditional.clear()
    if expression is None:
        project.bucket_roles[POD_ROLE].append(member)
        return
    project.bucket_policy.conditional.append(pods_bound(expression, member))
