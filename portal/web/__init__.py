"""What all pages share: responses, errors, forms, filters, security headers, static files, languages, pagination."""
