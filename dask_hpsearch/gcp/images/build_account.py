"""Commands for the service account as which builds run."""

from __future__ import annotations

from dask_hpsearch.gcp.api_errors import grant_command

# What a build needs of the bucket: its source and log, and to look at the bucket itself.
BUCKET_ROLES = ("roles/storage.objectUser", "roles/storage.legacyBucketReader")


def build_account_command(project: str, bucket: str, user: str = "user:YOU") -> str:
    """Return the command that creates an account for builds alone, with the rights they need."""
    name = "dask-hpsearch-builds"
    account = f"{name}@{project}.iam.gserviceaccount.com"
    member = f"serviceAccount:{account}"
    parts = [
        f"gcloud iam service-accounts create {name} --project={project}",
        grant_command(project, "roles/artifactregistry.writer", member),
        *bucket_commands(bucket, member),
        act_as_command(project, account, user),
    ]
    return " && ".join(parts)


def act_as_command(project: str, account: str, user: str = "user:YOU") -> str:
    """Return the command that lets a user start builds that run as an account."""
    return (
        f"gcloud iam service-accounts add-iam-policy-binding {account} --project={project} "
        f"--member={user} --role=roles/iam.serviceAccountUser"
    )


def bucket_commands(bucket: str, member: str) -> list[str]:
    """Return the commands that let builds use the bucket of their sources and logs."""
    return [
        f"gcloud storage buckets add-iam-policy-binding gs://{bucket} --member={member} "
        f"--role={role}"
        for role in BUCKET_ROLES
    ]
