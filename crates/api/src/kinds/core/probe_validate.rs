//! Validation of probes and of the handlers that probes and hooks share.

use k8s_openapi::api::core::v1::{ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};

use super::container_validate::check_port_reference;
use crate::kinds::Errors;
use crate::kinds::validate::{is_empty, port};
use crate::status::FieldError;

pub struct Handlers<'a> {
    pub exec: Option<&'a ExecAction>,
    pub http_get: Option<&'a HTTPGetAction>,
    pub tcp_socket: Option<&'a TCPSocketAction>,
    pub grpc: Option<&'a GRPCAction>,
    pub sleep: Option<i64>,
}

impl Handlers<'_> {
    /// Exactly one, and a good one.
    pub fn check(&self, field: &str, grace_seconds: i64, errors: &mut Errors) {
        let mut count = 0;
        let mut first = |part: &str, errors: &mut Errors| {
            count += 1;
            if count > 1 {
                let detail = "may not specify more than 1 handler type";
                errors.push(FieldError::forbidden(format!("{field}.{part}"), detail));
            }
            count == 1
        };
        if let Some(exec) = self.exec
            && first("exec", errors)
        {
            errors.required(format!("{field}.exec.command"), exec.command.as_ref().is_none_or(Vec::is_empty));
        }
        if let Some(get) = self.http_get
            && first("httpGet", errors)
        {
            check_http(&format!("{field}.httpGet"), get, errors);
        }
        if let Some(socket) = self.tcp_socket
            && first("tcpSocket", errors)
        {
            check_port_reference(&format!("{field}.tcpSocket.port"), &socket.port, errors);
        }
        if let Some(grpc) = self.grpc
            && first("grpc", errors)
        {
            port(format!("{field}.grpc.port"), grpc.port, errors);
        }
        if let Some(seconds) = self.sleep
            && first("sleep", errors)
            && !(0..=grace_seconds).contains(&seconds)
        {
            let detail =
                format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})");
            errors.push(FieldError::invalid(format!("{field}.sleep"), seconds, detail));
        }
        if count == 0 {
            errors.push(FieldError::required(field, "must specify a handler type"));
        }
    }
}

fn check_http(field: &str, get: &HTTPGetAction, errors: &mut Errors) {
    errors.required(format!("{field}.path"), is_empty(get.path.as_deref()));
    check_port_reference(&format!("{field}.port"), &get.port, errors);
    errors.one_of(format!("{field}.scheme"), get.scheme.as_deref(), &["HTTP", "HTTPS"]);
    for header in get.http_headers.iter().flatten() {
        let name = header.name.as_str();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
                          validation is '[-A-Za-z0-9]+')";
            errors.push(FieldError::invalid(format!("{field}.httpHeaders"), name, detail));
        }
    }
}

pub fn check(field: &str, probe: &Probe, part: &str, errors: &mut Errors) {
    let handlers = Handlers {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handlers.check(field, 0, errors);
    for (name, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        errors.not_negative(format!("{field}.{name}"), value.map(i64::from));
    }
    let readiness = part == "readinessProbe";
    if let Some(seconds) = probe.termination_grace_period_seconds {
        let at = format!("{field}.terminationGracePeriodSeconds");
        if readiness {
            errors.push(FieldError::invalid(at, seconds, "must not be set for readinessProbes"));
        } else if seconds <= 0 {
            errors.push(FieldError::invalid(at, seconds, "must be greater than 0"));
        }
    }
    if !readiness && probe.success_threshold.is_some_and(|t| t != 1) {
        let value = probe.success_threshold.unwrap_or(0);
        errors.push(FieldError::invalid(format!("{field}.successThreshold"), value, "must be 1"));
    }
}
