"""The products that can be measured, one driver a module."""
from .article import HTTP, HTTPS, NGINX_WEB, TLS_OFF, TLS_OFF_SINGLE
from .base import Driver, Task, check_paths
from .external import EXTERNAL, check_address, is_loopback
from .haproxy import HAPROXY
from .hitch import HITCH
from .nginx import NGINX
from .reference import REFERENCE, REFERENCE_NO_RESUME
from .stunnel import STUNNEL, STUNNEL_FORK, STUNNEL_UCONTEXT

DRIVERS: dict[str, Driver] = {
    driver.name: driver for driver in (
        REFERENCE, REFERENCE_NO_RESUME, HITCH, HAPROXY, NGINX, STUNNEL, STUNNEL_FORK, STUNNEL_UCONTEXT,
        HTTP, HTTPS, TLS_OFF, TLS_OFF_SINGLE, NGINX_WEB, EXTERNAL)
}

__all__ = ["DRIVERS", "EXTERNAL", "Driver", "Task", "check_address", "check_paths", "is_loopback"]
