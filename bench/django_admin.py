"""The admin pages that come with Django, as its documentation sets them up, with kept connections and compression."""

import os

import django
from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import path, re_path
from psycopg.conninfo import conninfo_to_dict

USER, PASSWORD = "root", "a long enough password"
CONTRIB = "django.contrib"

database = conninfo_to_dict(os.environ["DATABASE_URL"])
settings.configure(
    SECRET_KEY=os.environ["KEY"],
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    STATIC_URL="static/",
    INSTALLED_APPS=[
        f"{CONTRIB}.{app}" for app in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
    ],
    MIDDLEWARE=[
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.security.SecurityMiddleware",
        f"{CONTRIB}.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        f"{CONTRIB}.auth.middleware.AuthenticationMiddleware",
        f"{CONTRIB}.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    f"{CONTRIB}.auth.context_processors.auth",
                    f"{CONTRIB}.messages.context_processors.messages",
                ]
            },
        }
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": database["dbname"],
            "USER": database.get("user"),
            "HOST": database.get("host"),
            "CONN_MAX_AGE": None,
        }
    },
)
django.setup()

urlpatterns = [path("admin/", admin.site.urls), re_path("^static/(?P<path>.*)$", serve, {"insecure": True})]
app = get_wsgi_application()

if __name__ == "__main__":
    os.environ["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    call_command("migrate", verbosity=0)
    call_command("createsuperuser", interactive=False, username=USER, email="root@pbx.example", verbosity=0)
